"""Speed and memory of layers and of training steps, beside what the machine could do at best."""
