"""Floor 6: task distributions, each with ``sample`` for training and ``episode`` for evaluation."""

from .minibatches import Episode, Minibatches, MinibatchSchedule
from .sinusoid import Sinusoid

__all__ = ["Episode", "MinibatchSchedule", "Minibatches", "Sinusoid"]
