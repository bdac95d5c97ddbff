from .core.errors import CheckError as CheckError
from .core.errors import DataError as DataError
from .core.errors import DataWarning as DataWarning
from .core.errors import HeadstartError as HeadstartError
from .core.errors import MissingExtraError as MissingExtraError
from .core.errors import UsageError as UsageError
from .core.types import Accuracy as Accuracy
from .core.types import Evaluation as Evaluation
from .core.types import ImageDataset as ImageDataset
from .core.types import ImageSpec as ImageSpec
from .core.types import Prediction as Prediction
from .core.types import Problem as Problem
from .core.types import Sample as Sample
from .core.types import Table as Table
from .data.check import check as check
from .data.sources import open_source as open_source
from .export.export import Exported as Exported
from .export.export import export_model as export_model
from .model.bundle import load as load
from .model.bundle import save as save
from .model.classifier import Classifier as Classifier
from .model.pretrained import pretrained as pretrained
from .model.tabular_classifier import load_rows as load_rows
from .train.recipe import Recipe as Recipe
from .train.training_run import TrainingRun as TrainingRun
from .workflows.compare import Comparison as Comparison
from .workflows.compare import compare as compare
from .workflows.finetune import finetune as finetune
from .workflows.fit import fit as fit
from .workflows.train_images import train_photos as train_photos
from .workflows.train_tables import train_rows as train_rows

__version__: str
__all__: list[str]
