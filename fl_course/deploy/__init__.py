"""Chapter 11: the same federation on machines of its own, by Flower's message API (`pip install "fl-course[flower]"`).

    flower.py          ServerApp and ClientApp of an experiment; Flower's Grid as a post
    secure.py          secure sum over real processes
    export.py          a Flower app in a folder
    certificates.py    a certificate authority for a day, the server's certificate, the nodes' keys
    local.py           SuperLink and SuperNodes on this machine: started, watched, stopped
    stop.py            to end processes and all that they started
    environment.py     Flower's own environment, made at the first use
    scenes.py          what lesson 11 watches, played or read from recording.json
"""
