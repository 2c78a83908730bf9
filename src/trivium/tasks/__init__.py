"""What summarization, translation, classification, chat mean: columns, head, objective, metric. Data, no loops."""

from trivium.tasks.encode import Encoding, encode_rows, find_labels
from trivium.tasks.sample import Limits, Sample
from trivium.tasks.task import TASKS, Task, find_task

__all__ = ["Encoding", "Limits", "Sample", "TASKS", "Task", "encode_rows", "find_labels", "find_task"]  # noqa: RUF022  # sorted as Python sorts
