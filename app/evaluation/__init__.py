"""Measuring the whole pipeline on banks of labelled texts: `sluice eval`. Law: it runs what serves, at the thresholds that are
shipped; every share comes with its bound; nothing it reads is written but as figures."""
