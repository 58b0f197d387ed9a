"""Makes `stable_baselines3.zip`: a model of stable-baselines3 2.9.2 (torch 2.13.0, NumPy 2.4.6, gymnasium 1.4.0).

python make_stable_baselines3.py
"""

from pathlib import Path

from stable_baselines3 import A2C

if __name__ == "__main__":
    model = A2C("MlpPolicy", "CartPole-v1", n_steps=2, policy_kwargs={"net_arch": [3]}, seed=1, device="cpu")
    model.learn(4).save(Path(__file__).with_name("stable_baselines3.zip"))
