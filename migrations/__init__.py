"""Schema migrations; shipped inside the wheel and run by ``boreas_agent.store.migrate`` when the agent starts."""
