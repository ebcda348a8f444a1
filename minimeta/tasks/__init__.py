"""Task distributions: ``sample`` for training, ``episode`` for evaluation."""

from .distribution import EpisodeDistribution, ExampleTasks, TaskDistribution
from .few_shot import FewShotImages
from .mini_imagenet import load_mini_imagenet
from .minibatches import Episode, Minibatches, MinibatchSchedule, minibatches_of
from .omniglot import load_omniglot, split_omniglot
from .sinusoid import Sinusoid

__all__ = [
    "Episode",
    "EpisodeDistribution",
    "ExampleTasks",
    "FewShotImages",
    "MinibatchSchedule",
    "Minibatches",
    "Sinusoid",
    "TaskDistribution",
    "load_mini_imagenet",
    "load_omniglot",
    "minibatches_of",
    "split_omniglot",
]
