"""How right a model is under each setting, and what that costs: `skipvision evaluate`.

items.py        labelled questions: exercises, or a file of the user's own
trial.py        what is compared: a model, a setting, and what of the picture is shown
run.py          the engine answers every item under every trial
intervals.py    how sure a share is, and a difference
summary.py      figures by trial and stratum, as plain values
page.py         the same as a table, and as plots
"""

from skipvision.evaluation.items import Item, exercise_items, file_items, scene_items
from skipvision.evaluation.run import Outcome, evaluate
from skipvision.evaluation.summary import summarise
from skipvision.evaluation.trial import Trial

__all__ = ["Item", "Outcome", "Trial", "evaluate", "exercise_items", "file_items", "scene_items", "summarise"]
