"""/recipes: terms and training settings that belong together, with their evidence."""

from fastapi import APIRouter

from stillhouse.contract import recipes
from stillhouse.contract.resources import ListedRecipe, Page

router = APIRouter(tags=["recipes"])


@router.get("/recipes")
def list_recipes() -> Page[ListedRecipe]:
    """List every recipe that a job spec may name, with what was measured of it. All are on the one page."""
    return Page(data=recipes.listed())
