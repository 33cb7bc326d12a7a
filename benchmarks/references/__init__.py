"""What the agent is measured against: the least that anything doing the same job has to do."""
