import subprocess
import sys

from rich.table import Table

from diffusion_lab.commands.console import console


def test_a_table_in_a_log_is_whole():
    script = (
        "from rich.table import Table; from diffusion_lab.commands.console import console;"
        "table = Table(*[f'column {i}' for i in range(40)]); table.add_row(*['0.123456'] * 40);"
        "console().print(table)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(f"column {i}" in shown.splitlines()[1] for i in range(40))
    assert shown.count("0.123456") == 40


def test_the_other_processes_of_a_training_are_quiet(capsys):
    console(quiet=True).print(Table("a"))
    assert capsys.readouterr().out == ""
