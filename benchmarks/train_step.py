"""How long is a training step, and how much memory does it take? Ours beside anemoi-models.

Forward and backward pass of two samples, neither with gradient checkpointing; the networks are those of
`networks.py`. Wall time, CPU time of all threads, and the peak of memory above that of the built network.

  python -m venv peer && peer/bin/pip install -e . anemoi-models==0.13.0 anemoi-graphs==0.9.0 trimesh
  python benchmarks/train_step.py --peer peer/bin/python
"""

from contextlib import ExitStack

from networks import machine, parser_of, table, timed_in_turn, workers_of

BATCH = 2


def main() -> None:
    """Measure and print the table."""
    arguments = parser_of(__doc__).parse_args()
    head = ["processor", "network", "parameters", "wall s", "ratio", "CPU s", "ratio", "MB", "ratio"]
    rows = [head]
    for processor in arguments.processors:
        with ExitStack() as stack:
            workers = workers_of(arguments, processor, stack)
            medians = timed_in_turn(workers, "train", BATCH, arguments.repeats)
        last = medians[workers[-1].name]  # the peer's
        for worker in workers:
            row = [processor, worker.name, f"{worker.facts['parameters']:,}"]
            for key, digits in (("wall", 3), ("cpu", 3), ("megabytes", 0)):
                value = medians[worker.name][key]
                ratio = f"{value / last[key]:.2f}" if arguments.peer else "–"
                row += [f"{value:.{digits}f}", ratio]
            rows.append(row)
    print(f"{machine(arguments.threads)}; batch {BATCH}, medians of {arguments.repeats}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
