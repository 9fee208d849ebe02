<?php
/*
 * Plugin Name: Allotment login
 * Description: Visitors are who the box's gateway says: WordPress asks nobody for a password.
 */

// ALLOTMENT_GATEWAY is set by nginx for requests of the gateway, which alone tells who is asking. Others come from inside the
// module: there the first administrator logs in with her password, for journeys and repairs.
const ALLOTMENT_SSO = '/.well-known/allotment/sso';

// Marks accounts that belong to a member, so that nobody gets that of the first administrator by having its name.
const ALLOTMENT_MEMBER = 'allotment_member';

function allotment_by_gateway(): bool
{
    return ($_SERVER['ALLOTMENT_GATEWAY'] ?? '') === '1';
}

add_filter('determine_current_user', function ($user) {
    static $known = null;
    if (!allotment_by_gateway()) {
        return $user;
    }
    if ($known === null) {
        $known = false; // whoever asks while the account is being made
        $known = allotment_visitor();
    }
    if ($known) {
        $GLOBALS['wp_rest_auth_cookie'] = true; // a login that browsers send by themselves: the REST API wants a nonce, too
    }
    return $known;
}, 100);

// allotment_visitor is the account of whoever is asking, made just in time; false if nobody is logged in.
function allotment_visitor(): int|false
{
    $name = $_SERVER['HTTP_X_REMOTE_USER'] ?? '';
    if ($name === '' || sanitize_user($name, true) !== $name) {
        return false;
    }
    $user = get_user_by('login', $name);
    if (!$user) {
        return allotment_add($name);
    }
    if (!get_user_meta($user->ID, ALLOTMENT_MEMBER, true)) {
        return false;
    }
    allotment_change($user);
    return $user->ID;
}

// allotment_told is what the account must say of its member.
function allotment_told(): array
{
    $mail = $_SERVER['HTTP_X_REMOTE_EMAIL'] ?? '';
    return [
        'display_name' => ($_SERVER['HTTP_X_REMOTE_NAME'] ?? '') ?: $_SERVER['HTTP_X_REMOTE_USER'],
        'user_email' => is_email($mail) ? $mail : '',
    ];
}

// allotment_role is what the member may do here: run the site, write for it, or have a profile.
function allotment_role(): string
{
    $has = fn(string $header, string $what) => in_array($what, explode(',', $_SERVER[$header] ?? ''), true);
    return match (true) {
        $has('HTTP_X_REMOTE_GROUPS', 'officers') => 'administrator',
        $has('HTTP_X_REMOTE_PERMISSIONS', 'edit') => 'editor',
        default => 'subscriber',
    };
}

function allotment_add(string $name): int|false
{
    $account = allotment_told() + [
        'user_login' => $name, 'nickname' => $name, 'user_pass' => wp_generate_password(64), 'role' => allotment_role(),
        'meta_input' => [ALLOTMENT_MEMBER => '1'],
    ];
    $id = wp_insert_user($account);
    if (is_wp_error($id) && $id->get_error_code() === 'existing_user_email') { // members may share an address, accounts may not
        $id = wp_insert_user(['user_email' => ''] + $account);
    }
    if (is_wp_error($id)) {
        $user = get_user_by('login', $name); // another request may have made it meanwhile
        return $user && get_user_meta($user->ID, ALLOTMENT_MEMBER, true) ? $user->ID : false;
    }
    return $id;
}

function allotment_change(WP_User $user): void
{
    if ($user->roles !== [allotment_role()]) {
        $user->set_role(allotment_role());
    }
    $told = allotment_told();
    $owner = $told['user_email'] === '' ? false : email_exists($told['user_email']);
    if ($owner && $owner !== $user->ID) {
        unset($told['user_email']);
    }
    $changed = array_filter($told, fn($value, $field) => $user->$field !== $value, ARRAY_FILTER_USE_BOTH);
    if ($changed) {
        add_filter('send_email_change_email', '__return_false');
        wp_update_user($changed + ['ID' => $user->ID]);
    }
}

// A member without an address of the organisation's can save her profile all the same.
add_action('user_profile_update_errors', function (WP_Error $errors) {
    if (($_POST['email'] ?? '') === '') {
        $errors->remove('empty_email');
        $errors->remove('invalid_email');
    }
});

// allotment_path is the part of an address that the portal leads back to.
function allotment_path(string $address): string
{
    $parts = wp_parse_url($address ?: admin_url());
    return ($parts['path'] ?? '/') . (isset($parts['query']) ? '?' . $parts['query'] : '');
}

add_filter('login_url', fn($url, $to) => ALLOTMENT_SSO . '/login?to=' . rawurlencode(allotment_path($to)), 10, 2);
add_filter('logout_url', fn() => ALLOTMENT_SSO . '/logout');

// auth_redirect takes the place of WordPress's own, which wants a cookie.
if (!function_exists('auth_redirect')) {
    function auth_redirect()
    {
        if (!allotment_by_gateway()) {
            if (wp_validate_auth_cookie()) {
                return;
            }
            wp_die('Log in at /wp-login.php.', 403);
        }
        if (is_user_logged_in()) {
            return;
        }
        nocache_headers();
        wp_redirect(wp_login_url($_SERVER['REQUEST_URI']));
        exit;
    }
}

// Nobody outside sees WordPress's own login page; what it does for pages with a password of their own, and for requests by
// mail about somebody's data, goes on.
add_action('login_init', function () {
    $action = $_REQUEST['action'] ?? 'login';
    if (!allotment_by_gateway() || in_array($action, ['postpass', 'confirmaction'], true)) {
        return;
    }
    nocache_headers();
    wp_redirect($action === 'logout' ? wp_logout_url() : wp_login_url((string) ($_REQUEST['redirect_to'] ?? '')));
    exit;
});
add_filter('authenticate', function ($user) {
    return allotment_by_gateway() ? new WP_Error('allotment', 'This site knows no passwords.') : $user;
}, 1000);
add_filter('wp_is_application_passwords_available', '__return_false');
add_filter('allow_password_reset', '__return_false');
add_filter('show_password_fields', '__return_false');
