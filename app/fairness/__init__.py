"""`sluice pairs`: the model asked for people who differ in one attribute alone, and what came of it as a report."""
