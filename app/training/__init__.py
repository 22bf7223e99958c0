"""Training and measuring the shipped scorer: data, fit, evaluate. Law: nothing that serves imports it; data sets stay where they
are, the path to them is an argument."""
