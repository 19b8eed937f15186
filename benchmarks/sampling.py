"""How fast is a network call, and an ensemble? Ours beside anemoi-models.

Network calls with one and eight samples, and eight members sampled with 20 Heun steps (39 calls); the
networks are those of `networks.py`. "products" is the share of a call that its matrix products would take at
the speed this machine multiplies at: the rest is normalisation, activation, softmax and memory traffic.

  python -m venv peer && peer/bin/pip install -e . anemoi-models==0.13.0 anemoi-graphs==0.9.0 trimesh
  python benchmarks/sampling.py --peer peer/bin/python
"""

from contextlib import ExitStack

from networks import machine, matrix_seconds, parser_of, table, timed_in_turn, workers_of

MEMBERS = 8


def main() -> None:
    """Measure and print the table."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--ensembles", type=int, default=3, help="timed ensembles of each (default: 3; 0 for none)"
    )
    arguments = parser.parse_args()
    kinds = [("forward", 1, arguments.repeats), ("forward", MEMBERS, arguments.repeats)]
    if arguments.ensembles:
        kinds.append(("sample", MEMBERS, arguments.ensembles))
    rows = [["processor", "what", "network", "wall s", "ratio", "CPU s", "ratio", "products"]]
    for processor in arguments.processors:
        with ExitStack() as stack:
            workers = workers_of(arguments, processor, stack)
            for what, batch, repeats in kinds:
                medians = timed_in_turn(workers, what, batch, repeats)
                last = medians[workers[-1].name]  # the peer's
                for worker in workers:
                    name = f"call, batch {batch}" if what == "forward" else f"{batch} members, 20 steps"
                    row = [processor, name, worker.name]
                    for key in ("wall", "cpu"):
                        value = medians[worker.name][key]
                        ratio = f"{value / last[key]:.2f}" if arguments.peer else "–"
                        row += [f"{value:.3f}", ratio]
                    share = matrix_seconds(worker, batch) / medians[worker.name]["wall"]
                    rows.append([*row, f"{share:.2f}" if what == "forward" else "–"])
    print(f"{machine(arguments.threads)}; medians of {arguments.repeats}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
