//! A service in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{command, text};

/// A service, which ends with its test.
pub struct ServiceProcess {
    pub address: String,
    child: Child,
    data: tempfile::TempDir,
    open: bool,
}

impl ServiceProcess {
    /// One that needs no keys.
    pub fn open() -> ServiceProcess {
        ServiceProcess::start(true, tempfile::tempdir().unwrap())
    }

    /// One that needs keys, and the key of an account.
    pub fn with_key(account: &str) -> (ServiceProcess, String) {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().to_str().unwrap();
        let output = command(&["keys", "create", "--data", folder, "--account", account]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        (ServiceProcess::start(false, data), text(&output.stdout).trim().to_owned())
    }

    fn start(open: bool, data: tempfile::TempDir) -> ServiceProcess {
        let (child, address) = spawn(data.path(), open, "127.0.0.1:0");
        ServiceProcess { address, child, data, open }
    }

    /// Waits until there is a job of that state, and gives it.
    pub fn wait_for_job(&self, state: &str) -> serde_json::Value {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let arguments = ["jobs", "--state", state, "--json", "--remote", &self.address];
            let output = command(&arguments).output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            if let Some(job) = list["jobs"].get(0) {
                return job.clone();
            }
            assert!(Instant::now() < until, "no job is {state}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the process without a warning, and starts another that finds what it left, at the same address.
    pub fn kill_and_start_again(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let listen = self.address.trim_start_matches("http://").to_owned();
        let (child, address) = spawn(self.data.path(), self.open, &listen);
        assert_eq!(address, self.address);
        self.child = child;
    }
}

fn spawn(data: &Path, open: bool, listen: &str) -> (Child, String) {
    let mut arguments = vec!["serve", "--listen", listen, "--data", data.to_str().unwrap()];
    if open {
        arguments.push("--open");
    }
    let mut child = command(&arguments).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    (child, address)
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
