"""The class of all figures."""

import io

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A figure that a notebook shows, also if pyplot, which registers others, is not imported."""

    def _repr_png_(self) -> bytes:
        # A colorbar gets its labels in the first layout, and space for them in the second.
        self.draw_without_rendering()
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=100)
        return file.getvalue()
