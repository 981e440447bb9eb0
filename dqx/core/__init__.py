"""One seed as pure functions: no files, no devices, no other rooms of dqx but settings."""
