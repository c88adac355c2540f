"""Read back the completions that `heed generate` wrote, whole, with their prompts."""

from __future__ import annotations

from pydantic import ValidationError

from heed.data.datasets import paths_of
from heed.data.exchange import find_file, read_rows
from heed.data.report import DataReport
from heed.errors import DataError
from heed.records import Completion, Prompt
from heed.settings import DataSettings

COMPLETIONS_FILE = "completions.jsonl"


def load_completions(data: DataSettings) -> tuple[list[tuple[Prompt, Completion]], DataReport]:
    """Load prompts and completions, in the order of the files.

    Raises:
        DataError: nothing readable is there, or the rows are no completions.
    """
    report = DataReport(", ".join(paths_of(data)))
    out: list[tuple[Prompt, Completion]] = []
    for path in paths_of(data):
        for number, row in read_rows(find_file(path, (COMPLETIONS_FILE,))):
            if data.limit is not None and len(out) >= data.limit:
                break
            if not {"prompt", "completion"} <= row.keys():
                raise DataError(
                    f"{path}, row {number} has the columns {', '.join(row) or '(none)'}; expected "
                    "prompt and completion as `heed generate` writes them: give the folder of such "
                    "a run"
                )
            report.add_read()
            try:
                prompt = Prompt.model_validate(row["prompt"])
                completion = Completion.model_validate(row["completion"])
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                place = ".".join(str(part) for part in fault["loc"])
                detail = f"line {number}: {place}: {fault['msg']}"
                report.drop("not a completion with its prompt", detail)
                continue
            report.add_kept(completion.num_tokens)
            out.append((prompt, completion))
    return out, report
