"""Fine-tuning with Skip-Vision: conversations in, a checkpoint folder that carries its SkipConfig out.

    settings.py      TuneConfig: the one YAML file of a run
    run.py           Run: settings resolved and checked; what is in a run's folder
    sources.py       files of samples, of which any can be read at any time
    conversation.py  LLaVA's format and `messages` -> one form
    encoding.py      samples -> token ids, answers, prepared pixels; bad ones are set aside with a code
    packing.py       samples side by side in one row, without padding
    trainee.py       the model as it is taught: packed samples in, loss out
    schedule.py      which samples and which learning rate each step has
    trainer.py       the loop
    world.py         one process or many
    checkpoints.py   where a run goes on after a kill
    journal.py       what it says of itself while it learns
    plot.py          its loss as a picture
export.py        the finished folder
    local.py         a run in one process

Source of the method and its settings: Skip-Vision (arXiv:2503.21817), sections 3 and 4.1.
"""

from skipvision.tuning.local import tune
from skipvision.tuning.run import Run
from skipvision.tuning.settings import LoraConfig, TuneConfig

__all__ = ["LoraConfig", "Run", "TuneConfig", "tune"]
