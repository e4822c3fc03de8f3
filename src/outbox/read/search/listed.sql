  -- Only those that are listed.
  and id = any ($11::bigint[])
