"""The main job: a character-level language model, from a text to a trained model on disk."""

from .corpus import Corpus, Vocabulary, python_reference, text_file
from .model import CharLanguageModel
from .run import TrainingRun, Watcher
from .settings import Settings

__all__ = [
    "CharLanguageModel",
    "Corpus",
    "Settings",
    "TrainingRun",
    "Vocabulary",
    "Watcher",
    "python_reference",
    "text_file",
]
