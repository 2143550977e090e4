"""Model-free learners: each improves a policy from batches of transitions, whatever their source.

One file an algorithm, whose settings are in `configs`, which imports no torch. `actors` are the
policies' networks. The agents of `mbrl.agents` give learners their data, real or imagined.
"""
