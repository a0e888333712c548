"""What Akida 1.0 and 2.0 share: integer layers without a state, one frame per step.

layers: Network to stages of one integer layer each. fit: stages to integers and limits. mapping: filters to neural
processors, and sequences. contract: what a Program's params mean, and their check. packed, kernels: the simulator.
plain: the independent model.

Exact to quantizeml's published Akida 2.0 reference arithmetic and to the published Akida 1.0 activation equation; not
checked against the engine or silicon.
"""
