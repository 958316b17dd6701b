"""What moves: explorers that retrain a real federation while a slider is dragged.

    controls.py, charts.py    what can be moved, what is drawn        points.py, live.py      what a run shows; runs in a thread
    explorer.py, cells.py     the widget, and its cell                plots.py                still pictures, and the colours
    recipe.py        an experiment in plain data, so that pages train it without Python: recipe_page.py, and workbook/page
    tour.py          chapter 0: ε, compression and client fraction at once; the picture of the whole
    fraction.py      chapter 1: clients a round, local epochs, α
    drift.py         chapter 2: two bowls and the methods; μ, E and α on digits
    sandwich.py      chapter 3: ε between an accountant above and an attack below
    theatre.py       chapter 4: secure aggregation, message by message
    compression.py   chapter 5: ratio, bits, error feedback
    selection.py     chapter 6: who is asked, over-selection, the score's weights, speeds; who is starved
    asynchrony.py    chapter 7: buffer, devices at work, discount, speeds; a timeline
    personalisation.py   chapter 8: layers at home, fine-tuning, a rope; clients beside what they reach alone
    robustness.py    chapter 9: a lie dragged among honest points; attacks and rules, retrained
    capstones.py     chapter 10: hospitals, whom the noise hides, ε
    scale.py         chapter 11: clients a round on links that are not the laptop's
    dashboard.py     any federation, watched while it runs: start, pause, stop; alarms with their chapters
"""

from .charts import BarChart, Chart, ImageChart, PlaneChart, TimelineChart
from .controls import Button, Choice, LogSlider, Slider, Steps, Switch
from .explorer import Explorer
from .points import Point
from .recipe import By, Recipe

__all__ = ["BarChart", "Button", "By", "Chart", "Choice", "Explorer", "ImageChart", "LogSlider", "PlaneChart", "Point", "Recipe",
           "Slider", "Steps", "Switch", "TimelineChart"]
