"""Tasks: the torch-free programs around the graphs. One module per task, imported when it is asked for."""

from anyport.task.opening import TASKS, check_settings, open_task, task_module
from anyport.task.task import Printout, Task, TaskOptions, settings_from

__all__ = [
    "TASKS",
    "Printout",
    "Task",
    "TaskOptions",
    "check_settings",
    "open_task",
    "settings_from",
    "task_module",
]
