"""Curation: what an operator asks of lexicon files. Faults, differences, imports, measures.

Law: returns data and prints nothing (`commands` alone prints); changes nothing except by `imports.apply`. A count is told
beside what was measured and never judged: nothing here says that there are too few terms. How a term is found is the
engine's to say, so whatever is asked about a sentence is asked of the engine (`trial`), never of the text. docs/lexicons.md.
"""
