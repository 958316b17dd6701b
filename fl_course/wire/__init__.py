"""The wire: messages ⇄ bytes. What is counted was really encoded.

    frames.py           plain data ⇄ bytes with a checksum; long arrays are written once
    messages.py         the model's message and the update's; what may arrive
    payloads.py         updates that bring their own bytes: sparse, quantised
    layer_payloads.py   thin factors and cut networks
    masked.py           integers under masks, to be added and nothing else
    lengths.py          how much a message says that it holds, before it is unpacked
    bits.py             codes of b bits and positions, packed
    ring.py             integers modulo 2^b, packed
"""
