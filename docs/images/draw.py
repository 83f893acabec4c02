"""The diagrams of the explanations: ``python docs/images/draw.py`` writes them beside this file.

They stand in the pages themselves, so that lines and text take the page's colour, in light and dark.
"""

from __future__ import annotations

from pathlib import Path

BLUE, ORANGE, GREEN = "#3f8fe0", "#e0853f", "#3fa66b"
CELL = 24


class Picture:
    """Shapes, one after the other."""

    def __init__(self, name: str, says: str, width: int, height: int) -> None:
        self.name, self.width = name, width
        style = "max-width: 100%; height: auto; display: block; margin: 1em auto"
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" style="{style}" '
            f'role="img" aria-label="{says}" font-size="13" font-family="inherit" fill="currentColor">'
        )
        end = (
            f'<defs><marker id="{name}-end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="currentColor"/></marker></defs>'
        )
        self.parts = [head, end]

    def box(self, x, y, width, height, colour=None, dashed=False, opacity=0.35, stroke="currentColor"):
        fill = f'fill="{colour}" fill-opacity="{opacity}"' if colour else 'fill="none"'
        dash = ' stroke-dasharray="3 3" stroke-opacity="0.6"' if dashed else ""
        self.parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" {fill} stroke="{stroke}"{dash}/>')

    def grid(self, x, y, rows, columns, cell=CELL, dashed=False):
        for row in range(rows):
            for column in range(columns):
                self.box(x + column * cell, y + row * cell, cell, cell, dashed=dashed)

    def text(self, x, y, words, at="middle", size=13, weight="normal"):
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{at}" font-size="{size}" font-weight="{weight}">{words}</text>'
        )

    def line(self, x1, y1, x2, y2, colour="currentColor", width=1.2, arrow=False, opacity=1.0):
        end = f' marker-end="url(#{self.name}-end)"' if arrow else ""
        self.parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="{width}" '
            f'stroke-opacity="{opacity}"{end}/>'
        )

    def svg(self) -> str:
        return "\n".join([*self.parts, "</svg>\n"])


def windows() -> Picture:
    picture = Picture(
        "windows", "Two 3 by 3 windows, two cells apart, on a padded 5 by 5 input, and their outputs", 440, 300
    )
    left, top = 10, 30
    picture.text(left + 84, 18, "input 5 x 5, padding 1")
    picture.grid(left, top, 7, 7, dashed=True)
    picture.grid(left + CELL, top + CELL, 5, 5)
    picture.box(left, top, 3 * CELL, 3 * CELL, BLUE)
    picture.box(left + 2 * CELL, top, 3 * CELL, 3 * CELL, ORANGE)
    picture.text(320, 66, "output 3 x 3")
    picture.grid(284, 78, 3, 3)
    picture.box(284, 78, CELL, CELL, BLUE)
    picture.box(284 + CELL, 78, CELL, CELL, ORANGE)
    picture.line(left + 7 * CELL + 8, 114, 276, 114, arrow=True)
    picture.text(320, 174, "windows of 3 x 3, stride 2:")
    picture.text(320, 192, "(5 + 2 - 3) // 2 + 1 = 3")
    row = 238
    picture.text(left, row - 10, "dilation 2: three taps over 5 cells", at="start")
    picture.grid(left, row, 1, 9)
    for tap in (2, 4, 6):
        picture.box(left + tap * CELL, row, CELL, CELL, GREEN)
        picture.text(left + tap * CELL + 12, row + 17, f"{tap // 2 - 1}")
    picture.line(left + 2 * CELL, row + 36, left + 7 * CELL, row + 36)
    picture.text(left + 4.5 * CELL, row + 54, "extent")
    return picture


def gradients() -> Picture:
    picture = Picture(
        "gradients",
        "Forward, each output sees three cells; backward, each cell is seen by one or two outputs",
        480,
        330,
    )
    left, cell = 50, 36
    colours = (BLUE, ORANGE, GREEN)

    def middle(cells):
        return left + cells * cell + cell / 2

    picture.text(left + 4.5 * cell, 16, "forward: stride 2, three taps, padding 1")
    picture.grid(left, 110, 1, 9, cell)
    picture.box(left - cell, 110, cell, cell, dashed=True)
    picture.box(left + 9 * cell, 110, cell, cell, dashed=True)
    for output in range(5):
        picture.box(left + 2 * output * cell, 32, cell, cell)
        picture.text(middle(2 * output), 55, f"y{output}")
        for tap, colour in enumerate(colours):
            to = 2 * output + tap - 1
            picture.line(middle(2 * output), 68, middle(to), 110, colour, 2)
    for place in range(9):
        picture.text(middle(place), 133, f"x{place}")
    picture.text(left + 4.5 * cell, 190, "backward: zeros between the outputs, taps the other way round")
    for place in range(9):
        picture.box(left + place * cell, 206, cell, cell, dashed=bool(place % 2))
        picture.text(middle(place), 229, "0" if place % 2 else f"dy{place // 2}")
        picture.box(
            left + place * cell, 284, cell, cell, (ORANGE, GREEN)[place % 2] if place in (4, 5) else None, opacity=0.2
        )
        picture.text(middle(place), 307, f"dx{place}")
    for place, sources in ((4, ((4, 1),)), (5, ((4, 2), (6, 0)))):
        for source, tap in sources:
            picture.line(middle(source), 242, middle(place), 284, colours[tap], 2)
    for tap, colour in enumerate(colours):
        x = 150 + 70 * tap
        picture.line(x, 163, x + 20, 163, colour, 3)
        picture.text(x + 25, 167, f"tap {tap}", at="start", size=12)
    return picture


def im2col() -> Picture:
    says = "Each window becomes a column; the weights as a matrix, times the columns, are the output"
    picture = Picture("im2col", says, 480, 250)
    top, cell, columns = 40, 20, 160
    picture.text(60, 26, "x")
    picture.grid(20, top, 4, 4, cell)
    picture.box(20, top, 3 * cell, 3 * cell, BLUE)
    picture.box(20 + cell, top, 3 * cell, 3 * cell, ORANGE)
    picture.text(60, top + 100, "windows of 3 x 3")
    picture.line(108, top + 72, columns - 6, top + 72, arrow=True)
    picture.text(columns + 40, 26, "columns: K x P")
    for row in range(9):
        for column, colour in enumerate((BLUE, ORANGE, None, None)):
            picture.box(columns + cell * column, top + 16 * row, cell, 16, colour)
    picture.text(318, top + 14, "times w: O x K")
    for row in range(2):
        for column in range(9):
            picture.box(260 + 13 * column, top + 24 + 16 * row, 13, 16, GREEN, opacity=0.25)
    picture.line(columns + 88, top + 72, 400, top + 72, arrow=True)
    picture.text(440, top + 46, "y: O x P")
    for row in range(2):
        for column, colour in enumerate((BLUE, ORANGE, None, None)):
            picture.box(408 + 16 * column, top + 56 + 16 * row, 16, 16, colour)
    picture.text(240, 216, "K = channels · taps rows, P = positions; a block of the positions at a time,")
    picture.text(240, 234, "so that the columns fit the cache and max_workspace")
    return picture


def tile() -> Picture:
    picture = Picture(
        "tile", "Rows of data, each element broadcast, times vectors of packed weights, summed in registers", 480, 300
    )
    top = 70
    picture.text(316, 20, "weights, packed: one row of two vectors at a time")
    for vector in range(2):
        for lane in range(8):
            picture.box(170 + 148 * vector + 18 * lane, 30, 18, 18, GREEN)
    picture.text(70, top - 4, "data, as it lies")
    for row in range(5):
        y = top + 14 + 34 * row
        for channel in range(5):
            picture.box(
                16 + 18 * channel, y, 18, 18, BLUE if channel == 2 else None, opacity=0.7 if channel == 2 else 0.3
            )
        picture.line(108, y + 9, 164, y + 9, BLUE, 1.6, arrow=True)
        for vector in range(2):
            picture.box(170 + 148 * vector, y, 144, 18, ORANGE, opacity=0.3)
    picture.text(136, top + 8, "broadcast", size=11)
    for vector in range(2):
        picture.line(242 + 148 * vector, 48, 242 + 148 * vector, top + 12, GREEN, 1.6, arrow=True)
    picture.text(316, 262, "sums stay in registers: rows x vectors of them")
    picture.text(64, 262, "a row: one output")
    picture.text(240, 286, "each step: a channel of every row, times a row of weights, added to all sums")
    return picture


def winograd() -> Picture:
    picture = Picture(
        "winograd",
        "Squares of cells and taps are transformed, multiplied place by place, and transformed back",
        480,
        290,
    )
    cell = 13
    picture.text(55, 20, "6 x 6 cells: d")
    picture.grid(16, 30, 6, 6, cell)
    picture.text(55, 164, "3 x 3 taps: g")
    picture.grid(36, 174, 3, 3, cell)
    picture.text(186, 20, "V")
    picture.text(186, 154, "U")
    for y, colour in ((30, BLUE), (164, GREEN)):
        picture.grid(147, y, 6, 6, cell)
        picture.box(147, y, 6 * cell, 6 * cell, colour, opacity=0.18)
        picture.box(147 + 3 * cell, y + 2 * cell, cell, cell, colour, opacity=0.8)
    picture.line(98, 69, 141, 69, arrow=True)
    picture.text(120, 58, "BᵀdB", size=12)
    picture.line(79, 193, 141, 199, arrow=True)
    picture.text(110, 184, "GgGᵀ", size=12)
    picture.text(300, 78, "M")
    picture.grid(261, 88, 6, 6, cell)
    picture.box(261, 88, 6 * cell, 6 * cell, ORANGE, opacity=0.18)
    picture.box(261 + 3 * cell, 88 + 2 * cell, cell, cell, ORANGE, opacity=0.8)
    picture.line(229, 66, 258, 104, arrow=True)
    picture.line(229, 206, 258, 160, arrow=True)
    picture.text(356, 200, "36 places, each a matrix product:", size=12)
    picture.text(356, 218, "(squares x channels) · (channels x channels)", size=12)
    picture.line(343, 127, 396, 127, arrow=True)
    picture.text(368, 116, "AᵀMA", size=12)
    picture.text(430, 90, "4 x 4 outputs")
    picture.grid(404, 101, 4, 4, cell)
    picture.text(240, 270, "36 multiplications a channel, where 16 outputs of 9 taps take 144")
    return picture


def call() -> Picture:
    picture = Picture(
        "call",
        "A call is viewed canonically, becomes a spec, an implementation is chosen, and it writes the result",
        480,
        430,
    )
    steps = (
        ("conv2d(x, w, stride=2, layout=&quot;NHWC&quot;)", "conv.py", None),
        ("views in canonical order: N, C, H, W", "layout.py: no copy", BLUE),
        ("a spec: everything but the data", "spec.py: all validation", BLUE),
        ("an implementation that supports and prefers it", "operation.py, catalog.py", ORANGE),
        ("y: memory in the caller's layout", "layout.py", BLUE),
        ("run(spec, x, w, b, out=..., resources=...)", "kernels/", GREEN),
        ("y", "", None),
    )
    for place, (what, where, colour) in enumerate(steps):
        y = 10 + 60 * place
        picture.box(70, y, 330, 40, colour, opacity=0.18)
        picture.text(235, y + (18 if where else 25), what)
        picture.text(235, y + 33, where, size=11)
        if place:
            picture.line(235, y - 20, 235, y - 2, arrow=True)
    picture.parts.append(
        '<path d="M70 30 H30 V330 H66" fill="none" stroke="currentColor" stroke-dasharray="5 4" '
        'marker-end="url(#call-end)"/>'
    )
    picture.parts.append(
        '<text transform="translate(22 180) rotate(-90)" text-anchor="middle" font-size="12">'
        "seen before: straight to the run</text>"
    )
    return picture


DRAWN = (windows, gradients, im2col, tile, winograd, call)

if __name__ == "__main__":
    for draw in DRAWN:
        made = draw()
        Path(__file__).with_name(f"{made.name}.svg").write_text(made.svg())
