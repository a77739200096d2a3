"""Whatever strangers send is thrown at whatever reads it: nothing may come out but an answer or an error of ours.

    targets.py     what is tried, and what it must hold to
    seeds.py       what each of them is given first
    harness.py     one target in a process of its own, steered by the code that each input reaches
    __main__.py    all of them in turn, and the figures: `make fuzz`

The ordinary tests throw the same targets what `hypothesis` makes up (`tests/fuzz`), and whatever was found once.
"""
