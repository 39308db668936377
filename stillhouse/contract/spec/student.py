"""What the teacher is distilled into."""

from stillhouse.contract.spec.architecture import Architecture

# Today every student is a built-in family; students derived from the teacher will join this union.
Student = Architecture
