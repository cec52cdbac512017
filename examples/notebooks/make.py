"""Makes the notebooks of this folder from `examples/python/*.py`, and executes them: `cargo xtask python notebooks`.

In a source, `# %% [markdown]` begins a text, each line a comment, and `# %%` begins code. With `--check` nothing is written: every notebook
must have been made from its source as it is.
"""

import os
import pathlib
import sys

# What the kernels run in too.
os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")

import nbformat
from nbclient import NotebookClient

FOLDER = pathlib.Path(__file__).parent
SOURCES = FOLDER.parent / "python"


def cells(text):
    for block in text.split("# %%")[1:]:
        head, _, body = block.partition("\n")
        body = body.strip("\n")
        if "[markdown]" in head:
            yield nbformat.v4.new_markdown_cell("\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines()))
        elif body:
            yield nbformat.v4.new_code_cell(body)


def made(source):
    notebook = nbformat.v4.new_notebook(cells=list(cells(source.read_text(encoding="utf-8"))))
    notebook.metadata.update(kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"}, language_info={"name": "python"})
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same every time
    return notebook


def bare(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def main(arguments):
    check = "--check" in arguments
    only = next((argument for argument in arguments if not argument.startswith("-")), "")
    for source in sorted(SOURCES.glob("*.py")):
        if only not in source.stem:
            continue
        target = FOLDER / f"{source.stem}.ipynb"
        notebook = made(source)
        if check:
            if not target.exists() or bare(nbformat.read(target, 4)) != bare(notebook):
                sys.exit(f"{target.name} is not what its source makes of it; run `cargo xtask python notebooks`")
            continue
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(SOURCES)}}).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times would differ each time
        nbformat.write(notebook, target)
        print(f"made {target.name}")


main(sys.argv[1:])
