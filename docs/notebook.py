"""Executes docs/first_sweep.ipynb and writes it back with what it showed: `python docs/notebook.py`."""

import re
from pathlib import Path

import nbclient
import nbformat

NOTEBOOK = Path(__file__).parent / "first_sweep.ipynb"


def executed(path: Path, timeout: float = 300.0) -> nbformat.NotebookNode:
    """Run every cell in a new kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=timeout, kernel_name="python3").execute()
    return notebook


def cleaned(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out what differs from run to run without saying anything: progress, times, the temporary folder."""
    for cell in notebook.cells:
        cell.metadata = {}
        shown = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        if cell.cell_type == "code":
            cell.outputs = shown
    text = re.sub(r"/[^\"<> ]*/tmp\w+/runs", "runs", nbformat.writes(notebook))
    return nbformat.reads(text, as_version=4)


if __name__ == "__main__":
    nbformat.write(cleaned(executed(NOTEBOOK)), NOTEBOOK)
