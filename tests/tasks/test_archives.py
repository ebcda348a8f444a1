"""An error in reading names its true cause."""

import pytest

from minimeta.errors import DataError
from minimeta.tasks.archives import damage_told


@pytest.mark.parametrize(
    "kind", [PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError]
)
def test_what_the_system_refuses_is_not_called_damage(kind):
    with pytest.raises(DataError, match="^a.zip cannot be read: the reason$"), damage_told("a.zip"):
        raise kind(1, "the reason")


def test_mistakes_of_a_program_keep_their_names():
    with pytest.raises(TypeError), damage_told("a.zip"):
        raise TypeError
