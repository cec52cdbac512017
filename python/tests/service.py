"""A service in a process of its own, on loopback: `cargo xtask python test` builds it, and says where it is in PELLUCID_BINARY."""

import json
import os
import signal
import subprocess
import time
import urllib.request

BINARY = os.environ.get("PELLUCID_BINARY", "")


class Service:
    """Without keys if it is open; what it is told and asks for in a folder of its own."""

    def __init__(self, folder, open_=True):
        self.folder, self.environment = folder, _without_settings(folder)
        arguments = ["serve", "--listen", "127.0.0.1:0", "--data", str(folder / "data"), *(["--open"] if open_ else [])]
        self.log = open(folder / "log", "w+")
        self.process = subprocess.Popen(
            [BINARY, *arguments], stdout=subprocess.PIPE, stderr=self.log, text=True, env=self.environment,
        )
        line = self.process.stdout.readline()
        if "listening on " not in line:
            raise RuntimeError((folder / "log").read_text())
        self.address = line.split("listening on ")[1].split()[0]

    def key(self, account):
        """A new key of an account."""
        arguments = [BINARY, "keys", "create", "--data", str(self.folder / "data"), "--account", account]
        return subprocess.run(arguments, capture_output=True, text=True, check=True, env=self.environment).stdout.strip()

    def jobs(self):
        """Its jobs, the newest first."""
        with urllib.request.urlopen(f"{self.address}/v1/jobs", timeout=30) as answer:
            return json.load(answer)["jobs"]

    def until(self, state, seconds=60):
        """The newest job, once it is in that state."""
        deadline = time.monotonic() + seconds
        while True:
            jobs = self.jobs()
            if jobs and jobs[0]["state"] == state:
                return jobs[0]
            assert time.monotonic() < deadline, f"no job is {state}: {jobs[:1]}"
            time.sleep(0.05)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.log.close()
        assert code == 0, (self.folder / "log").read_text()


def _without_settings(folder):
    """The environment, without what the tester has set up."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PELLUCID_") or name == "PELLUCID_ISA"}
    return {**kept, "XDG_CONFIG_HOME": str(folder), "HF_HUB_OFFLINE": "1"}
