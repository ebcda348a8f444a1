"""The windows of a convolution with "same" padding, in numbers."""

from __future__ import annotations

from typing import NamedTuple


class Windows(NamedTuple):
    """Windows of ``kernel`` x ``kernel`` pixels over an image of ``sizes``,
    ``stride`` pixels apart.

    As in TensorFlow's "same" padding there are ceil(size / stride) along an
    axis, and zeros surround the image so that the last one fits: an odd row
    below, an odd column to the right.
    """

    sizes: tuple[int, int]
    kernel: int
    stride: int

    @property
    def counts(self) -> tuple[int, ...]:
        """How many windows there are down and across."""
        return tuple(-(-size // self.stride) for size in self.sizes)

    @property
    def padding(self) -> tuple[int, ...]:
        """How many zeros are along each axis."""
        spans = ((count - 1) * self.stride + self.kernel for count in self.counts)
        return tuple(max(span - size, 0) for span, size in zip(spans, self.sizes, strict=True))

    @property
    def before(self) -> tuple[int, ...]:
        """How many of them stand above and to the left."""
        return tuple(zeros // 2 for zeros in self.padding)


def pooled_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of images ``(T, N, height, width, C)`` after 2x2 pooling, which
    keeps the last of an odd number."""
    tasks, examples, height, width, channels = shape
    return tasks, examples, -(-height // 2), -(-width // 2), channels
