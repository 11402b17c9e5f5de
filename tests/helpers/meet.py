"""What each of two processes does for test_distributed.py: join the other one and print its own number."""

import torch

from fmbench.system.distributed import join_group

group = join_group(torch.device("cpu"))
group.wait()
print(group.rank, flush=True)
group.close()
