"""The command line of a table that holds figures against what they must be."""

import argparse
import sys
from collections.abc import Callable

from frfsr.errors import UserError
from frfsr.evals.cache import ScoreCache
from frfsr.evals.evaluation import Evaluation
from frfsr.evals.tables import Table
from frfsr.files import require_writable, write_text

Results = dict[str, Evaluation]


def table_parser(description: str | None, data: str) -> argparse.ArgumentParser:
    """Make the parser.

    Args:
        description: of the table.
        data: what --data is.

    Returns:
        The parser, to which others may be added.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="DIR", required=True, help=data)
    parser.add_argument("--model", metavar="NAME", default="frfsr-tiny", help="as for frfsr upscale (%(default)s)")
    parser.add_argument("--device", help="cpu, cuda, ...; default: a GPU where there is one")
    parser.add_argument("--cache", metavar="DIR", help="keep scores here and do not compute them again")
    parser.add_argument("--out", metavar="FILE", help="write the table as markdown, too")
    return parser


def print_table(
    options: argparse.Namespace, measure: Callable[[ScoreCache | None], Results], tabulate: Callable[[Results], Table]
) -> int:
    """Measure, and print the table.

    Args:
        options: of `table_parser`.
        measure: evaluates everything that the table needs; scores found in the cache are not computed again.
        tabulate: makes the table.

    Returns:
        The exit code: 0, 1 if an image could not be measured, 2 for bad input.
    """
    try:
        if options.out:
            require_writable(options.out)
        results = measure(ScoreCache(options.cache) if options.cache else None)
        table = tabulate(results)
        if options.out:
            write_text(options.out, table.as_markdown())
        print(table.title, table.as_text(), sep="\n")
    except UserError as error:
        print("frfsr:", error, file=sys.stderr)
        return 2
    return int(any(result.failures for result in results.values()))
