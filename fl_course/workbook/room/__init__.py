"""The federation of the room: every phone or laptop that opens the page is a client.

    seats.py      who sits where; names, tokens, events; what a seat owes
    server.py     the web server, in a thread of its own: pages come and go; a `Post` to the loop
    room.py       the experiment, its rounds, and what the projector shows
    pupils.py     simulated pages, so that the room can be tried alone
    again.py      a run of the room once more, in one process
    page/         the page of a client and of the projector

Pages train with the JavaScript engine (workbook/page/) and speak the wire format of the library (wire/), in the orders and
answers of federation/orders.py. The loop, stages, schedules and checks are the library's own.
"""
