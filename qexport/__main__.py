"""`python -m qexport`: the same as the `qexport` command."""

from qexport.cli.main import main

main(prog_name="qexport")
