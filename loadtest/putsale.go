package loadtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"flashgate/sale"
)

// PutSale makes the sale of a load at its target and waits until it can be asked about, at most a time. It
// returns the sale as it is there, with its times fixed.
func PutSale(ctx context.Context, o Options, most time.Duration) (sale.Config, error) {
	c := newClient([]string{o.BaseURL}, o.Token, o.Sale.Sale, 1, reachTimeout)
	defer c.close()
	config := o.Sale
	raw, err := json.Marshal(config)
	if err != nil {
		return config, err
	}
	path := "/v1/admin/sales/" + url.PathEscape(config.Sale)
	var a Answer
	c.send(ctx, &a, http.MethodPut, path, raw)
	switch {
	case a.Gone != "":
		return config, unreachable(o.BaseURL, a.Gone)
	case a.Status == 401, a.Status == 403:
		return config, fmt.Errorf(
			"%s answers %d: the key is not known there, or may not put sales (role marketing or admin)",
			o.BaseURL, a.Status)
	case a.Status >= 300:
		return config, fmt.Errorf("%s does not take the sale: %d %s", o.BaseURL, a.Status, a.Code)
	}
	config.Resolve(sale.Moment(time.Now().UnixMilli()), nil)
	for until := time.Now().Add(most); ; {
		status, _, err := c.availability(ctx)
		if err == nil && status == 200 {
			return config, nil
		}
		if time.Now().After(until) {
			return config, errors.Join(fmt.Errorf("sale %s is not there after %v: status %d; does a reconciler run?",
				config.Sale, most, status), err)
		}
		if !sleep(ctx, settleEvery) {
			return config, ctx.Err()
		}
	}
}
