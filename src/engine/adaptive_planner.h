#pragma once
// Moved: the planner knows no model and lives with the other plain functions.

#include "speculate/adaptive_planner.h"
