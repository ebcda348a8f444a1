"""Task distributions: ``sample`` for training, ``episode`` for evaluation."""

from .distribution import EpisodeDistribution, ExampleTasks, TaskDistribution
from .few_shot import FewShotImages
from .image_folder import load_image_folder
from .images import ImageClasses
from .mini_imagenet import load_mini_imagenet
from .minibatches import Episode, Minibatches, MinibatchSchedule, minibatches_of
from .omniglot import Characters, load_omniglot, split_omniglot
from .sinusoid import Sinusoid

__all__ = [
    "Characters",
    "Episode",
    "EpisodeDistribution",
    "ExampleTasks",
    "FewShotImages",
    "ImageClasses",
    "MinibatchSchedule",
    "Minibatches",
    "Sinusoid",
    "TaskDistribution",
    "load_image_folder",
    "load_mini_imagenet",
    "load_omniglot",
    "minibatches_of",
    "split_omniglot",
]
