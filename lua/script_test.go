package lua

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A script has the functions that it uses, those that these use, and no others.
func TestUnusedFunctionsAreLeftOut(t *testing.T) {
	text := `-- head used_in_comment
local one = 1 -- said
local never, two = 1, 2
local NEVER = KEYS[3]
local TEXT = 'a' -- NEVER
local TABLE = {}
local called = deep(1)
local function deep(a)
  return a
end
local function used(a)
  -- no word
  return deep(a) .. 'end' .. a
end

local function alone()
  return alone() + by_alone()
end
local function by_alone() -- used_in_comment
  if one then
    return 'x'
  end -- of if
end
return used(one)
`
	require.Equal(t, `local one = 1 -- said
local never, two = 1, 2
local called = deep(1)
local function deep(a)
  return a
end
local function used(a)
  return deep(a) .. 'end' .. a
end

return used(one)
`, slim(text))
	require.Equal(t, `local both = {}
local function shared()
end
local function make_judge()
local CAP = 2
local function deep()
  return CAP
end
local function rare()
  return deep() + #both
end
  return rare() + shared()
end
return both[1] or shared() or make_judge()
`, slim(`local CAP = 2
local both = {}
local function deep()
  return CAP
end
local function shared()
end
local function rare()
  return deep() + #both
end
local function make_judge()
  return rare() + shared()
end
return both[1] or shared() or make_judge()
`), "what only make_judge uses moves into it, in its order")
}
