<?php
/*
 * Plugin Name: Allotment
 * Description: Fits WordPress into the box: settings come from the portal, and nothing is fetched from outside.
 */

// What officers set in the portal is what WordPress sees.
foreach (ALLOTMENT_OPTIONS as $name => $value) {
    add_filter("pre_option_$name", fn() => $value);
}

// WordPress's language is the organisation's, if it is one that the box has.
add_filter('locale', function ($locale) {
    return allotment_locale(ALLOTMENT_LANGUAGE) ?? $locale;
});

// allotment_locale finds WordPress's name of a language given as in BCP 47: de is de_DE, nl is nl_NL, pt-BR is pt_BR.
function allotment_locale(string $language): ?string
{
    static $found = [];
    if (!array_key_exists($language, $found)) {
        $name = str_replace('-', '_', $language);
        $tries = [$name, $name . '_' . strtoupper($name), $name . '_*'];
        $found[$language] = null;
        foreach (str_starts_with($name, 'en') ? [] : $tries as $try) {
            $files = glob(WP_LANG_DIR . "/$try.mo");
            if ($files) {
                $found[$language] = basename($files[0], '.mo');
                break;
            }
        }
    }
    return $found[$language];
}

// Due work (scheduled posts, clearing up) is done after an answer was sent, so no visitor waits for it. WordPress's own
// way is a request to itself from inside, which would have to pass the gateway.
add_action('shutdown', function () {
    if (!function_exists('fastcgi_finish_request') || wp_installing() || !wp_get_ready_cron_jobs()) {
        return;
    }
    fastcgi_finish_request();
    require_once ABSPATH . 'wp-cron.php';
}, 1000);

// No request leaves WordPress, not even to itself: the box would drop it, and a page or due work would wait for that.
add_filter('pre_http_request', fn() => new WP_Error('http_request_blocked', 'This box lets WordPress fetch nothing.'));

// Pictures of people would be asked of gravatar.com, by each visitor's browser.
add_filter('pre_option_show_avatars', '__return_zero');

// Nobody speaks XML-RPC, and nothing outside is asked whether there are updates.
add_filter('xmlrpc_enabled', '__return_false');
remove_action('wp_head', 'rsd_link');
foreach (['update_core', 'update_plugins', 'update_themes'] as $name) {
    add_filter("pre_site_transient_$name", fn() => (object) [
        'last_checked' => time(), 'updates' => [], 'response' => [], 'version_checked' => wp_get_wp_version(),
    ]);
}
add_action('init', function () {
    remove_action('init', 'wp_schedule_update_checks');
    remove_action('init', 'wp_schedule_https_detection');
    $fetching = ['wp_version_check', 'wp_update_plugins', 'wp_update_themes', 'wp_https_detection', 'wp_site_health_scheduled_check'];
    array_map('wp_clear_scheduled_hook', $fetching);
}, 0);
add_filter('site_status_tests', function ($tests) {
    unset($tests['direct']['rest_availability'], $tests['async']['dotorg_communication'],
        $tests['async']['background_updates'], $tests['async']['loopback_requests'], $tests['async']['page_cache']);
    return $tests;
});
