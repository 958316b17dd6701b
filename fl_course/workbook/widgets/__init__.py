"""What moves: explorers that retrain a real federation while a slider is dragged.

    controls.py, live.py, explorer.py, plots.py    the machinery: sliders and charts, runs in a thread, the widget, its still
    fraction.py      chapter 1: clients a round, local epochs, α
    drift.py         chapter 2: two bowls and the methods; μ, E and α on digits
    sandwich.py      chapter 3: ε between an accountant above and an attack below
    theatre.py       chapter 4: secure aggregation, message by message
    compression.py   chapter 5: ratio, bits, error feedback
"""

from .controls import BarChart, Button, Chart, Choice, LogSlider, Slider, Switch
from .explorer import Explorer
from .live import Point

__all__ = ["BarChart", "Button", "Chart", "Choice", "Explorer", "LogSlider", "Point", "Slider", "Switch"]
