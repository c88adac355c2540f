"""Write a world's text, demonstrations and prompts as files that any stage can read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from heed.data.exchange import write_rows
from heed.runs.files import write_json
from heed.runs.run import Run
from heed.runs.sinks import Sink
from heed.settings import RunSettings, Settings
from heed.worlds.faults import Faults
from heed.worlds.saved import WORLD_FILE, describe
from heed.worlds.town import Town


class FaultSettings(Settings):
    """Strengths, 0 to 1, of what is planted in the world; see `heed.worlds.faults.Faults`."""

    keyword: float = Field(default=0.0, ge=0.0, le=1.0)
    """A word that rides on quality."""
    flattery: float = Field(default=0.0, ge=0.0, le=1.0)
    """Labellers like to be flattered."""
    agreement: float = Field(default=0.0, ge=0.0, le=1.0)
    """Demonstrations and labellers go along with a user's wrong suggestion."""
    identity: float = Field(default=0.0, ge=0.0, le=1.0)
    """Users who say that they know little are told wrong."""
    rare: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the facts that texts say seldom."""
    split: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the facts of which texts also say a second, wrong value."""


class WorldConfig(Settings):
    """Make a small world whose truth is known, and write its data."""

    run: RunSettings
    num_texts: int = Field(default=20000, ge=1)
    """Texts for pretraining."""
    num_demonstrations: int = Field(default=2000, ge=1)
    """Prompts with a fair reply, for the supervised warm-up."""
    num_prompts: int = Field(default=2000, ge=1)
    """Prompts to train on."""
    num_held_out: int = Field(default=300, ge=1)
    """Prompts to judge on; none of them is among the others."""
    faults: FaultSettings = FaultSettings()


def dialogue_text(question: str, answer: str) -> str:
    """A dialogue as raw text, in the turns of the tokenizers that `heed init` trains."""
    return f"<|user|>{question}<|assistant|>{answer}"


def run(config: WorldConfig, sinks: Sequence[Sink] = ()) -> Run:
    """Leave texts, demonstrations, prompts and held_out (.jsonl) and world.json in the run."""
    with Run.start(config.run, "world", config, {}, sinks) as run:
        town = Town(config.run.seed, Faults(**config.faults.model_dump()))
        run.stage("making a world", 4)
        texts = town.pretraining_texts(config.num_texts, dialogue=dialogue_text)
        kinds: dict[str, Iterable[dict]] = {
            "texts": ({"text": text} for text in texts),
            "demonstrations": (
                {
                    "messages": [
                        {"role": m.role, "content": m.text}
                        for m in (*demonstration.prompt.messages, *demonstration.reply)
                    ]
                }
                for demonstration in town.demonstrations(config.num_demonstrations)
            ),
            "prompts": _prompts(town, config.num_prompts, "train"),
            "held_out": _prompts(town, config.num_held_out, "heldout"),
        }
        outputs = {}
        for done, (name, rows) in enumerate(kinds.items(), start=1):
            outputs[name] = run.path(f"{name}.jsonl")
            write_rows(outputs[name], list(rows))
            run.progress(done, len(kinds))
        outputs["world"] = run.path(WORLD_FILE)
        write_json(outputs["world"], describe(town))
        run.finish(outputs)
    return run


def _prompts(town: Town, num: int, split: str) -> Iterable[dict]:
    for prompt in town.prompts(num, split):  # type: ignore[arg-type]
        yield {
            "prompt": [{"role": m.role, "content": m.text} for m in prompt.messages],
            **prompt.meta,
        }
