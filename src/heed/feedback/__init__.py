"""Who says how good a completion is, or which of two is better.

base          the two protocols: Scorer and Labeller
rules         callables with TRL's `reward_funcs` signature, weighted sums
foreign       reward functions written for verl, OpenRLHF, slime, AReaL and trlx
callables     a callable found by its name
checkers      answers, numbers, options, forms and programs that can be verified
sandbox       programs that nobody trusts, run against tests
reward_model  a reward model as a scorer (the only module here that needs torch)
simulated     simulated labellers, crews, scorers as labellers, replay
"""
