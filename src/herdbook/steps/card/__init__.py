"""The model card: facts gathered from the plan and what the build wrote, checked metadata, escaped text, figures.

A card is a pure function of its inputs: no clock, no host, no chance. Each claim on it says whether it was measured by
the build, recomputed from a locked source, or asserted by somebody.

===============  =====================================================================================
``step``         writes the card and its figures; says which files these are and what they are made of
``context``      gathers the facts as frozen dataclasses
``results``      reads measurements, chooses each task's main metric
``counts``       parameters, by what they do
``lasered``      what LASER cut, and what was measured before and after
``rank``         places in locked snapshots of leaderboards
``metadata``     the front matter, and the check that the Hub's client does not make
===============  =====================================================================================
"""
