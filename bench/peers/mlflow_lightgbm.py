"""The peer: `mlflow models serve` with a LightGBM model, one worker."""

import os
import sys
from pathlib import Path

import lightgbm
import mlflow.lightgbm

if __name__ == "__main__":
    folder = sys.argv[1] + ".mlflow"
    mlflow.lightgbm.save_model(lightgbm.Booster(model_file=sys.argv[1]), folder)
    program = str(Path(sys.executable).with_name("mlflow"))
    serve = [program, "models", "serve", "-m", folder, "--env-manager", "local", "-h", "127.0.0.1"]
    os.execv(program, [*serve, "-p", sys.argv[2], "-w", "1"])
