"""The model card: facts gathered from the plan and the build's results, checked metadata, escaped text, figures.

A card is a pure function of its inputs: it depends on no clock, host or random number. Each claim on it is marked as
measured by the build, recomputed from a locked source, or asserted by a person.

===============  =====================================================================================
``step``         writes the card and its figures
``context``      the facts as frozen dataclasses
``gathering``    gathers them
``files``        the files that it lists
``origins``      sources, and the models that the build made
``results``      reads measurements, chooses each task's main metric
``benchmarks``   results of the Hub's benchmarks
``counts``       numbers of parameters, by their purpose
``lasered``      what LASER removed, and measurements before and after
``rank``         places in locked snapshots of leaderboards
``routed``       the report on routers
``metadata``     the front matter, and its check, which the Hub's client does not do offline
===============  =====================================================================================
"""
